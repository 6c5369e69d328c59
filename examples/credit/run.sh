#!/usr/bin/env bash
# Two institutions, their tables and consents, one agreement, six jobs, two verified logs.
# Usage: examples/credit/run.sh DATA_DIR OUT_DIR
set -euo pipefail

if [ $# -ne 2 ] || [ ! -d "$1" ]; then
  echo "usage: $0 DATA_DIR OUT_DIR   (DATA_DIR holds bank_customers.csv, partner_payments.csv," >&2
  echo "       bank_consents.csv and partner_consents.csv; OUT_DIR is made)" >&2
  exit 2
fi
mkdir -p "$2"
data=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

for file in bank_customers partner_payments bank_consents partner_consents; do
  if [ ! -r "$data/$file.csv" ]; then
    echo "$data/$file.csv is missing; nothing was done." >&2
    exit 2
  fi
done

make --no-print-directory -C "$root" install >&2
PATH=$root/.venv/bin:$PATH

# Every call makes nodes of its own, so that the evidence of an earlier one is never touched.
nodes=$(mktemp -d "$out/nodes.XXXXXX")
bank=$nodes/bank
partner=$nodes/partner
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT  # the nodes stop, whatever happens

echo "== Two nodes in $nodes"
concordat init "$bank" --name bank --sector bank
concordat init "$partner" --name partner --sector ecommerce
cat >> "$bank/config.yaml" <<YAML
datasets:
  customers:
    path: "$data/bank_customers.csv"
    identifier: {column: phone, kind: phone, region: CN}
YAML
cat >> "$partner/config.yaml" <<YAML
datasets:
  payments:
    path: "$data/partner_payments.csv"
    identifier: {column: phone, kind: phone, region: CN}
YAML
concordat serve "$bank" > "$nodes/bank.log" 2>&1 &
concordat serve "$partner" > "$nodes/partner.log" 2>&1 &
concordat node status "$bank" --wait 60
concordat node status "$partner" --wait 60

echo "== Pairing"
concordat pair invite "$bank" --output "$nodes/invitation"
# Between institutions the fingerprint is read over the phone; here both homes are at hand.
fingerprint=$(concordat node fingerprint "$bank")
concordat pair accept "$partner" "$nodes/invitation" --fingerprint "$fingerprint"

echo "== Consents"
concordat consent import "$bank" "$data/bank_consents.csv"
concordat consent import "$partner" "$data/partner_consents.csv"

echo "== Agreement"
concordat agreement propose "$bank" "$here/agreement.yaml"
concordat agreement sign "$partner" credit-risk

echo "== Jobs"
concordat job run "$bank" "$here/overlap.yaml" --output "$out/overlap.json"
concordat job run "$bank" "$here/intersect.yaml" --output "$out/intersect.csv"
concordat job run "$bank" "$here/insight.yaml" --output "$out/insight.csv"
# The partner's features for the first 200 of the customers in common.
head -n 201 "$out/intersect.csv" > "$nodes/people.csv"
cp "$here/lookup.yaml" "$nodes/"
concordat job run "$bank" "$nodes/lookup.yaml" --output "$out/lookup.csv"
concordat job run "$bank" "$here/score.yaml" --output "$out/score.csv"
concordat job run "$bank" "$here/evaluate.yaml" --output "$out/evaluate.csv"

# The bank's own: have the scores of large limits moved away from those of small ones?
python "$here/stability.py" "$out/score.csv" "$data/bank_customers.csv" "$out/stability.csv"

echo "== Audit"
concordat audit verify "$bank"
concordat audit verify "$partner"

python "$here/summarise.py" "$bank" "$partner" > "$out/summary.json"
kill $(jobs -p)
wait
echo "== Results in $out: overlap.json, intersect.csv, insight.csv, lookup.csv, score.csv, evaluate.csv,"
echo "   stability.csv, summary.json"
