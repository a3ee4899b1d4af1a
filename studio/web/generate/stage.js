// Runs once for the element of stage.py: moves the divide of a before-after slider, and shows an image on the full screen.
element.addEventListener('input', event => {
  const range = event.target.closest('.before-after input[type=range]');
  if (range) range.closest('.frame').style.setProperty('--at', `${range.value}%`);
});
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-full]');
  if (!button) return;
  if (document.fullscreenElement) document.exitFullscreen();
  else button.closest('figure').requestFullscreen();
});
