"""The look: one quiet theme, light and dark, and the few rules that Gradio's theme variables can't say."""

import gradio as gr
from gradio.themes.utils import fonts

INK = gr.themes.Color(
    name="ink",
    c50="#eef6f5", c100="#d7ebe8", c200="#b1d7d2", c300="#82bdb6", c400="#539e97", c500="#37827c",
    c600="#2a6863", c700="#245450", c800="#204441", c900="#1d3937", c950="#0d2120",
)  # fmt: skip
PAPER = gr.themes.Color(
    name="paper",
    c50="#fafaf8", c100="#f4f4f1", c200="#e7e6e2", c300="#d4d3ce", c400="#a5a49e", c500="#77766f",
    c600="#57564f", c700="#403f3a", c800="#2a2a27", c900="#1e1e1c", c950="#151514",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Warm paper, one deep green for what matters, thin lines, no shadows.

    Fonts come from Gradio's own files; its semi-bold ones hold a few letters only, so bold stands in for 600.
    """
    return gr.themes.Base(
        primary_hue=INK,
        secondary_hue=INK,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        font=(fonts.LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=(fonts.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_900",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_border_width_dark="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_label_text_weight="600",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_shadow_focus="0 0 0 2px *primary_100",
        input_shadow_focus_dark="0 0 0 2px *primary_900",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_large_text_weight="600",
        button_transition="background-color .15s ease",
        checkbox_background_color_selected="*primary_700",
        checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color_selected="*primary_700",
        checkbox_border_color_selected_dark="*primary_500",
        checkbox_label_background_fill="transparent",
        checkbox_label_background_fill_dark="transparent",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        loader_color="*primary_600",
        accordion_text_color="*neutral_800",
        accordion_text_color_dark="*neutral_200",
        error_background_fill="#fdf3f1",
        error_background_fill_dark="#2b1a17",
        layout_gap="14px",
        form_gap_width="0px",
    )


CSS = """
.gradio-container, .gradio-container > main { width: 100% !important; max-width: 1360px !important;
  margin: 0 auto !important; }
footer { opacity: .7; }
.dark { --color-accent: var(--primary-400); }

#masthead { padding: 6px 2px 0; }
#masthead h1 { font-size: 22px; font-weight: 600; letter-spacing: -.01em; margin: 0; }
#masthead p { margin: 2px 0 0; color: var(--body-text-color-subdued); }

/* A heading inside a column, and a line that reports. */
.heading h3 { font-size: 15px; font-weight: 600; margin: 6px 0 0; }
.heading p, .quiet p, .quiet { color: var(--body-text-color-subdued); font-size: 14px; margin: 0; }
.note { font-size: 14px; line-height: 1.5; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.note b { color: var(--body-text-color); font-weight: 600; }
.note.bad, .note .bad { color: #b23a24; }
.dark .note.bad, .dark .note .bad { color: #f0907c; }
.empty { border: 1px dashed var(--border-color-primary); border-radius: 10px; padding: 44px 24px; text-align: center;
  color: var(--body-text-color-subdued); background: var(--block-background-fill); line-height: 1.5; }
.empty b { display: block; color: var(--body-text-color); font-size: 16px; font-weight: 600; margin-bottom: 4px; }

.bar { height: 6px; border-radius: 3px; background: var(--border-color-primary); overflow: hidden; margin: 6px 0 8px; }
.bar > i { display: block; height: 100%; background: var(--slider-color); border-radius: 3px; transition: width .4s; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 2px 0 4px; }
.facts div { display: flex; flex-direction: column; }
.facts span { font-size: 13px; color: var(--body-text-color-subdued); }
.facts b { font-size: 18px; font-weight: 600; font-variant-numeric: tabular-nums; }
.pill { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 13px; font-weight: 600;
  background: var(--primary-100); color: var(--primary-800); }
.dark .pill { background: var(--primary-900); color: var(--primary-200); }
/* `:is`, since Gradio scopes only the first of several selectors. */
.pill:is(.failed, .interrupted, .bad) { background: #fbe4df; color: #96301d; }
.dark .pill:is(.failed, .interrupted, .bad) { background: #4a221a; color: #f5b3a5; }
.pill:is(.stopped, .paused, .quiet-pill) { background: var(--neutral-200); color: var(--neutral-700); }
.dark .pill:is(.stopped, .paused, .quiet-pill) { background: var(--neutral-800); color: var(--neutral-300); }
.facts .pill { font-style: normal; vertical-align: 2px; white-space: nowrap; }
.note.small { font-size: 13px; margin: 4px 0 2px; }
:is(#status, #loss, #warnings, #why, #report) > .html-container { padding: 0; }

/* Held-out loss by noise level; findings of a check; folded warnings. */
.bands { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px 20px; margin: 8px 0 6px; }
.band { display: grid; grid-template-columns: 1fr auto; font-size: 13px; }
.band span { color: var(--body-text-color-subdued); }
.band b { font-weight: 600; font-variant-numeric: tabular-nums; }
.band .bar { grid-column: 1 / -1; margin: 3px 0 4px; }
.band.worse .bar > i { background: #c2681c; }
.told { list-style: none; margin: 4px 0 8px; padding: 0; font-size: 14px; line-height: 1.45; overflow-wrap: anywhere; }
.told li { margin: 0 0 4px; padding: 0; }
.told b { font-weight: 600; }
.sign { display: inline-block; font-weight: 600; margin-right: 4px; }
.sign.stop { color: #b23a24; }
.sign.warn { color: #96590f; }
.dark .sign.stop { color: #f0907c; }
.dark .sign.warn { color: #f0a35e; }
.warnings summary { cursor: pointer; font-size: 14px; color: var(--body-text-color-subdued); }

/* Captions stand under the thumbnails instead of on them; a grid is as high as its pictures. */
.gallery { height: auto !important; min-height: 0 !important; }
.gallery .grid-wrap { height: auto !important; max-height: none !important; min-height: 0 !important; padding: 10px; }
.gallery .grid-container { gap: 10px !important; height: auto !important; margin: 0 !important;
  grid-template-columns: repeat(auto-fill, minmax(var(--cell, 112px), 1fr)) !important; }
.gallery .gallery-item, .gallery .thumbnail-lg { aspect-ratio: auto !important; height: auto !important; }
.gallery .thumbnail-lg { display: flex !important; flex-direction: column; overflow: hidden; background: transparent; }
.gallery .thumbnail-lg img { aspect-ratio: 1; width: 100%; height: auto !important; object-fit: contain;
  background: var(--background-fill-secondary); }
.gallery .caption-label { position: static !important; width: 100%; max-width: 100% !important; box-sizing: border-box;
  border: 0; border-radius: 0; background: transparent !important; backdrop-filter: none; opacity: 1 !important;
  color: var(--body-text-color-subdued); font-size: 13px; line-height: 1.35; padding: 0 6px; margin: 5px 0 6px;
  text-align: left; white-space: normal; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  overflow: hidden; height: 2.7em; }
.gallery.strip .caption-label { display: none; }
#previews { --cell: 140px; }
#earlier { --cell: 84px; }
#cropped { --cell: 92px; }
#hard-pictures { --cell: 150px; }
#hard-pictures .caption-label { -webkit-line-clamp: 4; height: 5.4em; }
.aligned .block { display: flex; flex-direction: column; }
.aligned .block > label, .aligned .block > .container { flex: 1; display: flex; flex-direction: column; }
.aligned .input-container, .aligned .container > .wrap, .aligned label > input { margin-top: auto; }
.aligned .container > .wrap { min-height: 41px; }
.picture button, .picture .image-frame, .picture .image-container { width: 100% !important; }
#without, #picture { padding-top: 30px; }
.picture img { width: 100% !important; height: auto !important; max-height: 72vh; object-fit: contain !important; }
.dark input[type=range] { --neutral-200: var(--neutral-700); }
.drop .wrap { font-size: 14px !important; line-height: 1.4 !important; }
.drop .icon-wrap { display: none !important; }

/* What can be done with the run that is shown: as wide as its words. */
.tools > .more { flex: 0 0 auto; width: auto; flex-wrap: nowrap; align-items: center; gap: 8px; }
#more-steps { width: 90px; }

/* The loss chart: lines stretch with the page, letters do not. */
.plot { padding: 12px 20px 34px 62px !important; }
.chart { position: relative; height: 250px; }
.chart svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.chart path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.chart .grid { stroke: var(--border-color-primary); stroke-width: 1; }
.chart .raw { stroke: var(--train); stroke-width: 1; opacity: .22; }
.chart .train { stroke: var(--train); stroke-width: 2; }
.chart .held { stroke: var(--held); stroke-width: 2; }
.chart .spread { fill: var(--held); stroke: none; opacity: .16; }
.chart .base { stroke: var(--held); stroke-width: 1.5; stroke-dasharray: 5 4; opacity: .8; }
.chart span { position: absolute; font-size: 12px; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.chart .y { right: calc(100% + 8px); transform: translateY(50%); }
.chart .x { top: calc(100% + 6px); transform: translateX(-50%); }
.chart .slot { position: absolute; top: 0; bottom: 0; }
.chart .slot:hover { border-left: 1px solid var(--body-text-color-subdued); }
.chart .slot em { display: none; position: absolute; top: 4px; left: 6px; z-index: 3; font-style: normal;
  font-size: 12px; line-height: 1.5; white-space: pre; padding: 5px 9px; border-radius: 6px;
  border: 1px solid var(--border-color-primary);
  background: var(--background-fill-primary); color: var(--body-text-color); font-variant-numeric: tabular-nums; }
.chart .slot.left em { left: auto; right: calc(100% + 6px); }
.chart .slot:hover em { display: block; }
.legend { margin-left: -46px; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px;
  color: var(--body-text-color-subdued); margin-bottom: 12px; }
.legend i { display: inline-block; width: 18px; height: 0; border-top: 2px solid; vertical-align: 4px;
  margin-right: 6px; }
.plot { --train: #2a6863; --held: #c2681c; border: 1px solid var(--block-border-color);
  border-radius: 10px; background: var(--block-background-fill); }
.dark .plot { --train: #6fbdb3; --held: #f0a35e; }

/* One adapter: name, slider, remove, in one line on a wide page. */
.adapter { align-items: center; }
.adapter .note { min-width: 0; }
.mono { font-family: var(--font-mono); font-size: 13px; }
@media (max-width: 900px) {
  .side { order: 1; }
  .middle { order: 2; }  /* the editor stands above a long grid, not below it */
}
@media (max-width: 640px) {
  .gallery { --cell: 88px; }
  .gradio-container { padding: 8px !important; }
  .facts { gap: 4px 18px; }
  .facts b { font-size: 16px; }
  .bands { grid-template-columns: repeat(2, 1fr); }
}
"""
