"""What pgkit asks of the operating system: files, locks, processes, signals, CPU settings, progress bars."""
