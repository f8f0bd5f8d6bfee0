"""The paper's Tables 1, 2 and 3: `run` trains and evaluates the categories, `tables` sets them beside the paper's."""
