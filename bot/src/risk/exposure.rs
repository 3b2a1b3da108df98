//! Exposure of each leg: owned position and the worst case over working and unknown orders.
