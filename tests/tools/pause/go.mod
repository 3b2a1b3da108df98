module arbbot.io/tests/tools/pause

go 1.26.0
