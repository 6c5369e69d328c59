"""An institution's node."""

import logging
import os

# gRPC has no setting for the lowest TLS version. Below 1.3 a cipher suite fixes the certificate's
# kind, and we have ECDSA certificates only: with RSA suites only, nothing below 1.3 can be agreed
# on. TLS 1.3 has suites of its own. gRPC reads this when it is first used, so it stands here.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Silent unless a program, such as the serving node, says where its log goes.
logging.getLogger("concordat").addHandler(logging.NullHandler())
