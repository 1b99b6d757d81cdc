"""CalcJobs, one per task of the kernel, and calcfunctions."""
