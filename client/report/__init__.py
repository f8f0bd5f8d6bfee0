"""What the server said of some images, as one HTML page and as the table that ends `make demo`.

`page` writes the page, from `rows` for its table, `galleries` and `thumbnails`; `measures` are taken where folders
tell what the images are, and `summary` says them in words.
"""

from client.report.galleries import PICTURES
from client.report.measures import ServedMeasures, auroc, measure
from client.report.page import Beside, require_place_for_page, write_report
from client.report.summary import Speed, summary_table
from client.report.thumbnails import Thumbnails, thumbnails_of

__all__ = [
    "PICTURES",
    "Beside",
    "ServedMeasures",
    "Speed",
    "Thumbnails",
    "auroc",
    "measure",
    "require_place_for_page",
    "summary_table",
    "thumbnails_of",
    "write_report",
]
