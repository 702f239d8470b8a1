#!/bin/sh
# drawings.sh: makes the drawings of docs/design anew: each .dot file in docs/design/drawings becomes an .svg file beside
# it. Needs graphviz (https://graphviz.org). Where its version or the fonts of the system differ, so do coordinates.
set -eu
cd "$(dirname -- "$0")/../docs/design/drawings"

for source in *.dot; do
  dot -Tsvg "$source" -o "${source%.dot}.svg"
done
