-- What sessions know of earlier ones is stored in another form. All are derived again, with what they know.
UPDATE derivations SET seq = 0, mark = 0;
