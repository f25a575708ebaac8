module garrison

go 1.26.0

require (
	github.com/hugelgupf/p9 v0.3.0
	github.com/u-root/uio v0.0.0-20230305220412-3e8cd9d6bf63
	golang.org/x/sys v0.49.0
)

require (
	github.com/google/btree v1.1.3 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/subcommands v1.2.0 // indirect
	golang.org/x/net v0.62.0 // indirect
)
