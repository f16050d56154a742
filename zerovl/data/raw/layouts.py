"""All raw layouts by name; the names are the choices of `params.SourceParams.layout`."""

from __future__ import annotations

from zerovl.data.raw.coco import Coco
from zerovl.data.raw.imagefolder import ImageFolder
from zerovl.data.raw.karpathy import Karpathy
from zerovl.data.raw.layout import Layout
from zerovl.data.raw.tables import Tables
from zerovl.data.raw.webdataset import WebDataset
from zerovl.data.raw.zerovl_csv import ZeroVLCsv

_ALL: tuple[Layout, ...] = (ZeroVLCsv(), Karpathy(), WebDataset(), Tables(), ImageFolder(), Coco())
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
