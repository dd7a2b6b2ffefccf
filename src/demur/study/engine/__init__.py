"""How a study is run: cells, their folder, the processes, and what results were made with."""
