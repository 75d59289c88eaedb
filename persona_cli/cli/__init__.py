"""The command line: parse, call, render. No algebra here, and no heavy import outside a command's body."""
