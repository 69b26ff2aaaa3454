// Package chaintest makes forests in memory, for the tests of whatever reads a
// chain.Forest. Begin with New and a Point of Items:
//
//	f := chaintest.New(
//		chaintest.Point{Items: []chaintest.Item{
//			chaintest.File("a/b", "hello"),
//			chaintest.Link("l", "a/b"),
//		}},
//	)
//
// Missing parents and the root are made. Zoo is a forest with one of each
// kind. Tree lists what a tree holds, Disk what a real directory holds, in one
// form, so that two lists can be compared.
package chaintest
