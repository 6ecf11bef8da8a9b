CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO customer (name) VALUES ('ann'), ('bob'), ('eve');
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer, cents INTEGER);
INSERT INTO purchase (customer, cents) VALUES (1, 1250), (2, 890), (1, 4300);
