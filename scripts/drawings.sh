#!/bin/sh
# drawings.sh: makes the drawings of docs/design again: each .dot file in docs/design/drawings becomes an .svg
# file beside it. Needs graphviz (https://graphviz.org). Another version, or other
# fonts, move the boxes a little.
set -eu
cd "$(dirname -- "$0")/../docs/design/drawings"

for source in *.dot; do
  dot -Tsvg "$source" -o "${source%.dot}.svg"
done
