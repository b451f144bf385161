"""Studies: grids of runs, their tables and their curves (`refineloc-train --study generators-beta`).

    runs/STUDY/
        settings.toml              of all runs, except generator, β and seed
        iteration0-seedS/          a run of iteration 0 alone, which knows neither generator nor β
        GENERATOR-betaB-seedS/     a run; its iteration 0 is a copy
        table.md, table.csv, curves.png

The study `bases` (`bases.py`) has a run BASE-seedS for each base model and seed, and the same files beside them.

`run_study.py` is the flow of the other, `grid.py` says what is trained, `jobs.py` trains it in processes.
"""
