"""Days that follow one another: options, and the gate before what serves."""
