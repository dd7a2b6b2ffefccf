"""Prompts and answers from files, standard input or the hub; columns are recognised by name.

``read_prompts`` returns the prompts; ``prompts_with_summary`` also says which columns were used and
what was not read. ``read_completions`` returns prompts with answers that demur did not generate.
Published sets (``demur.prompts.sets``) and the Parquet files of a run need no conversion.
"""

from demur.prompts.completions import completions_with_summary as completions_with_summary
from demur.prompts.completions import read_completions as read_completions
from demur.prompts.label_files import Labels as Labels
from demur.prompts.label_files import read_labels as read_labels
from demur.prompts.label_files import with_labels as with_labels
from demur.prompts.prompt_files import prompts_with_summary as prompts_with_summary
from demur.prompts.prompt_files import read_prompts as read_prompts
from demur.prompts.prompt_files import write_prompts as write_prompts
from demur.prompts.prompt_rows import SourceSummary as SourceSummary
from demur.prompts.sets import SETS as SETS
from demur.prompts.sets import PromptSet as PromptSet
from demur.prompts.sets import find_set as find_set
