//! The four Tidegate resources: types, CEL rules, conditions.
