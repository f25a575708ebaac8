package gofer

// SetLimits makes eviction happen sooner.
func (c *Client) SetLimits(fids, idle int) {
	c.lruMu.Lock()
	c.fidsMax, c.idleMax = fids, idle
	c.lruMu.Unlock()
}

// Held is how many fids and idle files' descriptors there are.
func (c *Client) Held() (fids, idle int) {
	c.lruMu.Lock()
	defer c.lruMu.Unlock()
	return c.fidsN, c.idleN
}

// Messages is how many 9P messages were sent.
func (c *Client) Messages() int64 { return c.conn.Sent() }
