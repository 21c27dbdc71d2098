// Package program is an executable that the processes of an instance are started from:
// which one it is, and whether it may be used beside the one that runs.
//
// An upgrade opens the new executable once, so that all roles get the same file whatever
// happens to its path, and tries it before anything is touched: "PROGRAM version" must answer
// within a time limit, and name the version of the link that it speaks.
//
//	trafficd v1.4.0 go1.26.0 linux/amd64
//	protocol 1
//
// What it is not: it replaces nothing; cop and manager do.
package program
