"""Many runs: which ones an experiment has, where each stands, and who works on them.

    runs = plan(open_root("phantom"), Path("runs"), ops=["conv", "tvconv"], seeds=range(3), config="demo")
    result = run_experiment(runs, choose_executor("serial", runs))

The exports are imported when they are asked for: a worker process chooses its GPU before torch is imported.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # the names are in __init__.pyi
