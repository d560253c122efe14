//! What a webhook made from a message carries.
