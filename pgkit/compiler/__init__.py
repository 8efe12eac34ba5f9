"""A small tracing compiler on LLVM: functions of one element become loops, recorded calls become graphs. Knows no
RL."""
