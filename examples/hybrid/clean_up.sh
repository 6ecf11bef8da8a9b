# Ask the service about each of the words, then remove what it does not need any more.
set -eu

port=$(cat "$TITAN_SHARED/words.port")
for word in "$@"; do
    curl --fail --silent --show-error --max-time 10 "http://127.0.0.1:$port/$word"
done
rm "$TITAN_SHARED/words.tsv"
echo "cleaned up"
