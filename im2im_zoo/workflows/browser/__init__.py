"""Pages that run a package in the browser (docs/browser.md, docs/decisions/0019).

`facts` describes a package for the page, `onnxruntime` finds the files of onnxruntime-web, `page` joins both with the built
application (`make web`), and `server` serves them to this machine.
"""
