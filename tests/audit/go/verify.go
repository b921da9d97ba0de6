// An independent verifier: Go's own note and tlog packages, none of our code.
//
//	verify DIR
//
// DIR holds vkey, checkpoint, old (an earlier checkpoint), record, index, inclusion and consistency (one base64 hash a line).
// Prints "ok" and exits 0 if all of it holds; otherwise says what does not and exits 1.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(what string, err error) {
	fmt.Println(what+":", err)
	os.Exit(1)
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(os.Args[1], name))
	if err != nil {
		fail("read", err)
	}
	return data
}

func hash(text string) tlog.Hash {
	var h tlog.Hash
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) != len(h) {
		fail("hash", fmt.Errorf("%q is no hash", text))
	}
	copy(h[:], data)
	return h
}

func hashes(name string) []tlog.Hash {
	var made []tlog.Hash
	for _, line := range strings.Fields(string(read(name))) {
		made = append(made, hash(line))
	}
	return made
}

func open(name string, verifiers note.Verifiers) (int64, tlog.Hash) {
	n, err := note.Open(read(name), verifiers)
	if err != nil {
		fail(name, err)
	}
	lines := strings.Split(n.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		fail(name, err)
	}
	return size, hash(lines[2])
}

func main() {
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read("vkey"))))
	if err != nil {
		fail("vkey", err)
	}
	verifiers := note.VerifierList(verifier)
	size, root := open("checkpoint", verifiers)
	oldSize, oldRoot := open("old", verifiers)
	index, err := strconv.ParseInt(strings.TrimSpace(string(read("index"))), 10, 64)
	if err != nil {
		fail("index", err)
	}
	if err := tlog.CheckRecord(hashes("inclusion"), size, root, index, tlog.RecordHash(read("record"))); err != nil {
		fail("inclusion", err)
	}
	if err := tlog.CheckTree(hashes("consistency"), size, root, oldSize, oldRoot); err != nil {
		fail("consistency", err)
	}
	fmt.Println("ok")
}
