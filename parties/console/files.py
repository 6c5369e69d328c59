"""Files that a browser saves."""

import io
import zipfile
from pathlib import Path


def zipped(folder: Path) -> bytes:
    """A folder as a ZIP file, under its own name."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder.parent))
    return data.getvalue()
