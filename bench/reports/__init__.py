"""What people read: leaderboards, lists of runs, and the papers' printed numbers beside ours."""
