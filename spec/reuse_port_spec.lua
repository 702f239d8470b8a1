-- Two processes on one port: the system spreads the datagrams over them by sender.

local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local SENDERS = 64

-- Binds the port that it is told and answers every datagram with its name.
local program = [[
  local ip = require "ip"
  local sock = ip.udp.bind("127.0.0.1", tonumber(arg[1]), { reuse_port = true })
  print("bound") io.stdout:flush()
  while true do
    local _, address, port = sock:receive_string()
    sock:send_to(arg[2], address, port)
  end
]]

describe("reuse_port", function()
  teardown(process.stop_all)

  it("lets two processes share a port, and both get traffic", support.with_loop(function()
    local path = support.write_file(program)
    -- held while the processes start, so that nobody else gets the port; closed before the first datagram
    local holder = ip.udp.bind("127.0.0.1", 0, { reuse_port = true })
    local port = holder.local_port
    local one <close> = process.start(process.lua(path, tostring(port), "one"))
    local two <close> = process.start(process.lua(path, tostring(port), "two"))
    one:wait_for("bound")
    two:wait_for("bound")
    holder:close()
    local answers = { one = 0, two = 0 }
    for _ = 1, SENDERS do
      local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 5 })
      client:send("who?")
      local name = client:receive_string()
      answers[name] = answers[name] + 1
    end
    one:stop()
    two:stop()
    os.remove(path)
    assert.equal(SENDERS, answers.one + answers.two)
    assert.is_true(answers.one > 0 and answers.two > 0, "both have answered")
  end))
end)
