"""HTML pages: one folder of templates, one stylesheet, charts as SVG. Pages run no script and load nothing from outside."""

from im2im_zoo.pages.charts import Line, line_chart
from im2im_zoo.pages.render import Card, PageImage, data_uri, render

__all__ = ["Card", "Line", "PageImage", "data_uri", "line_chart", "render"]
