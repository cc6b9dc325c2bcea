"""Methods that run outside of this process: folders of outputs, commands, official code."""
