#!/bin/sh
# In the place of `holdfast` in tests: runs until it is told to end.
exec sleep 600
