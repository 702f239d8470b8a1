-- What the try_ calls promise where they would wait: one shared value, and no garbage.
local ip = require "ip"
local blocked_programs = require "spec.support.blocked_programs"
local garbage_of = require "spec.support.memory".garbage_of
local support = require "spec.support"

local byte_span = ip.byte_span
local with_loop = support.with_loop

describe("a try_ call that would wait", function()
  it("returns nil and ip.error.EAGAIN itself", with_loop(function()
    local sock = support.bound()
    local buf = byte_span.new(1)
    for _, name in ipairs { "try_receive", "try_receive_from" } do
      local value, err = sock[name](sock, buf)
      assert.is_nil(value)
      assert.is_true(rawequal(ip.error.EAGAIN, err))
    end
    assert.equal(ip.error[ip.error.EAGAIN.code], ip.error.EAGAIN)
    assert.is_false(ip.error.EAGAIN.transient)
    assert.is_nil(ip.error.EAGAIN.where)
    sock:close()
  end))

  it("does so, too, while another receive waits", with_loop(function()
    local sock = support.bound()
    local receiving = support.suspended(sock, "receive_string")
    local value, err = sock:try_receive(byte_span.new(1))
    assert.is_nil(value)
    assert.is_true(rawequal(ip.error.EAGAIN, err))
    sock:close()
    receiving:join()
  end))

  it("makes no garbage", with_loop(function()
    local sock = support.bound()
    local buf = byte_span.new(1)
    local try_receive, try_receive_from = sock.try_receive, sock.try_receive_from
    local function poll()
      for _ = 1, 100 do
        try_receive(sock, buf)
        try_receive_from(sock, buf)
      end
    end
    assert.equal(0, garbage_of(poll, 1, 1))
    sock:close()
  end))

  blocked_programs.it_blocked("does all this where it sends", blocked_programs.passes [[
    local ip = require "ip"
    local link = require "spec.support.blocked_link"
    local out, port = link.out, link.sink.local_port
    local address = ip.address.new("127.0.0.1")
    local function try_all()
      for _ = 1, 100 do
        local value, err = out:try_send("x")
        assert(value == nil and rawequal(err, ip.error.EAGAIN))
        value, err = out:try_send_to("x", address, port)
        assert(value == nil and rawequal(err, ip.error.EAGAIN))
      end
    end
    link.equal(0, require "spec.support.memory".garbage_of(try_all, 1, 1))
  ]])
end)
