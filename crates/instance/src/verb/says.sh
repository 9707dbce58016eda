#!/bin/sh
# In the place of `holdfast` in tests: says what the files beside its configuration ($2) hold.
cat "$2.stderr" >&2
cat "$2.stdout"
exit "$(cat "$2.status")"
