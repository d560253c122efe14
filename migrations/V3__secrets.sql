-- Values that an admin has put, sealed with a key that isn't here: who has a copy of the store alone can open none.
CREATE TABLE secrets (
    env    TEXT    NOT NULL,                    -- '': the top level of the configuration
    name   TEXT    NOT NULL,
    set_at INTEGER NOT NULL,
    key_id BLOB    NOT NULL,                    -- of the key that it is sealed with
    sealed BLOB    NOT NULL,                    -- nonce, ciphertext, tag; env and name are its associated data
    PRIMARY KEY (env, name)
) WITHOUT ROWID;
