local ip = require "ip"
local support = require "spec.support"

describe("a first datagram", function()
  it("comes back from an echo in another fiber", support.with_loop(function()
    local server, port = support.bound()
    local echo = ip.fiber.spawn(function()
      local buffer = ip.byte_span.new(64)
      local n, address, from = server:receive_from(buffer)
      server:send_to(buffer:slice(1, n), address, from)
    end)
    local client = ip.udp.connect("127.0.0.1", port)
    client:send("hello")
    assert.equal("hello", (client:receive_string()))
    echo:join()
    client:close()
    server:close()
  end))
end)
