//! Budgets and quotas: who goes when it is too much.
