"""HTML pages: one folder of templates, one stylesheet, charts as SVG. Pages load nothing from outside, and run no script but our own."""

from im2im_zoo.pages.charts import Line, line_chart
from im2im_zoo.pages.render import Card, PageImage, data_uri, page_script, render

__all__ = ["Card", "Line", "PageImage", "data_uri", "line_chart", "page_script", "render"]
