-- Rules as they were deployed, each environment's own. A file's text is kept with each release that has it: releases are
-- few, and one is read whole.
CREATE TABLE releases (
    id           INTEGER NOT NULL PRIMARY KEY,  -- the newest is never deleted, so that none is given twice
    env          TEXT    NOT NULL,              -- '': the top level of the configuration
    version      TEXT    NOT NULL,              -- a hash of its files: ctx.version
    author       TEXT    NOT NULL,
    message      TEXT    NOT NULL,
    tests        TEXT    NOT NULL,              -- how its tests came out
    at           INTEGER NOT NULL,
    active_since INTEGER                        -- when last; NULL: it never was
);

CREATE INDEX releases_env ON releases (env, id);

CREATE TABLE release_files (
    release INTEGER NOT NULL,
    path    TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    PRIMARY KEY (release, path)
) WITHOUT ROWID;

-- What runs in an environment. No row: nothing was ever deployed, the files of the rules run.
CREATE TABLE deployed (
    env    TEXT    NOT NULL PRIMARY KEY,
    active INTEGER,                             -- NULL: the files
    canary TEXT                                 -- JSON: a release that is tried on a part of the mail
) WITHOUT ROWID;
