"""Gradio's browser client with an index of its components, where it goes through all of them otherwise.

For each component of the page it goes through all events, and for each message of each event through the components,
all of it behind Svelte's proxies: most of the processor time that opening this page takes. Two of its functions are
replaced in the script as it is sent; a release of Gradio whose script reads otherwise is sent as it is.
"""

import hashlib
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import gradio
from starlette.datastructures import Headers
from starlette.responses import Response

log = logging.getLogger(__name__)
SCRIPTS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
_PATH = re.compile(r"/assets/(core-[\w-]+\.js)$")
# The names of local variables are another release's own, and stand for themselves here.
_FIND = re.compile(
    r"function (?P<name>[\w$]+)\((?P<node>\w+),(?P<id>\w+)\)\{if\((?P=node)\.id===(?P=id)\)return (?P=node);"
    r"if\((?P=node)\.children\)for\(let (?P<child>\w+) of (?P=node)\.children\)"
    r"\{let (?P<found>\w+)=(?P=name)\((?P=child),(?P=id)\);if\((?P=found)\)return (?P=found)\}return null\}"
)
_FIND_BY_INDEX = r"""var indexOfNodes=new WeakMap;function \g<name>(root,id){
let index=indexOfNodes.get(root);
if(!index){index=new Map;const walk=node=>{if(!index.has(node.id))index.set(node.id,node);
if(node.children)for(const child of node.children)walk(child)};walk(root);indexOfNodes.set(root,index)}
return index.get(id)??null}"""
# The tree is made anew here, and is another one from then on.
_MADE = re.compile(r"\bpostprocess\((?P<root>\w+)\)\{")
_MADE_ANEW = r"postprocess(\g<root>){indexOfNodes=new WeakMap;"
_EVENTS = re.compile(
    r"find_attached_events\((?P<node>\w+),(?P<all>\w+)\)\{let (?P<found>\w+)=(?P=all)\.filter\("
    r"(?P<one>\w+)=>(?P=one)\.targets\.find\(\(\[(?P<id>\w+)\]\)=>(?P=id)===(?P=node)\.id\)\)\.map\("
    r"(?P<event>\w+)=>\{let (?P<target>\w+)=(?P=event)\.targets\.find\(\(\[(?P<other>\w+)\]\)=>"
    r"(?P=other)===(?P=node)\.id\);return (?P=target)\?(?P=target)\[1\]:null\}\)\.filter\(Boolean\);"
    r"return (?P=node)\.props\.shared_props\.attached_events=(?P=found),(?P=node)\}"
)
_EVENTS_BY_INDEX = r"""find_attached_events(node,all){
let index=this.indexOfEvents;
if(!index||index.of!==all){index={of:all,names:new Map};
for(const one of all){const met=new Set;for(const[id,name]of one.targets)if(!met.has(id)){met.add(id);
if(name){if(!index.names.has(id))index.names.set(id,[]);index.names.get(id).push(name)}}}
this.indexOfEvents=index}
node.props.shared_props.attached_events=[...(index.names.get(node.id)||[])];return node}"""


def quickened(script: str) -> str | None:
    """The script with both functions replaced; None when it reads otherwise than expected."""
    for pattern, instead in ((_FIND, _FIND_BY_INDEX), (_MADE, _MADE_ANEW), (_EVENTS, _EVENTS_BY_INDEX)):
        script, many = pattern.subn(instead, script)
        if many != 1:
            return None
    return script


@cache
def _scripts() -> dict[str, tuple[bytes, str]]:
    """{name: (the script, its ETag)} of those sent changed. Made once: no name that is asked for adds to it."""
    made = {}
    for file in SCRIPTS.glob("core-*.js"):
        script = quickened(file.read_text("utf-8"))
        if script is None:
            log.info("%s of Gradio %s reads otherwise: pages open more slowly.", file.name, gradio.__version__)
            continue
        content = script.encode()
        made[file.name] = content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return made


class QuickClient:
    """ASGI middleware that sends the script. Not for a page with `gr.render`, which exchanges parts of the tree."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET" and _PATH.search(scope["path"])
        sent = asked and _scripts().get(asked[1])
        if not sent:
            return await self.app(scope, receive, send)
        content, tag = sent
        # no-cache: it is asked for again each time, and answered in a line when it is the same
        headers = {"etag": tag, "cache-control": "no-cache"}
        if Headers(scope=scope).get("if-none-match") == tag:
            response = Response(status_code=304, headers=headers)
        else:
            response = Response(content, media_type="text/javascript", headers=headers)
        await response(scope, receive, send)
