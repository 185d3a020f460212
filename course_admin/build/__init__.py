"""From one text file per lab to the instructor's notebook and the students' notebook.

solutions/lab.py --source--> cells --expand--> instructor's notebook --execute--> solutions/lab/lab.ipynb
                                                    |--release (nbgrader)------> labs/lab/lab.ipynb
"""
