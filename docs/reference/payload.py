"""Show the statement in a receipt's envelope: payload.py [--bytes] RECEIPT

With --bytes as it was signed, otherwise indented. Needs the standard library only.
"""

import base64
import json
import sys
from pathlib import Path

*as_bytes, receipt = sys.argv[1:]
payload = base64.b64decode(json.loads(Path(receipt).read_bytes())["payload"])
if as_bytes == ["--bytes"]:
    sys.stdout.buffer.write(payload)
else:
    print(json.dumps(json.loads(payload), indent=2))
