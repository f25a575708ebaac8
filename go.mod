module garrison

go 1.26.0

require (
	github.com/google/subcommands v1.2.0 // indirect
	github.com/hugelgupf/p9 v0.3.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
