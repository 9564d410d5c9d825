"""Offers: the parked polls, the notifications that wake the dispatcher, and the choice of a worker for each job."""
