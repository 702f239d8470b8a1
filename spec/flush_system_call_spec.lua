-- How sends with the option coalesce leave: in which system calls, and what follows when one of those is refused.
local platform = require "spec.support.platform"
local support = require "spec.support"
local trace = require "spec.support.trace"

local on_main = support.on_main

describe("the system calls of sends with coalesce", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  -- What the program writes, and the calls that it sends with: each with how many were taken, or the error's name.
  local function sends_of(inject, program)
    local log, output = trace.log([[
      local ip = require "ip"
            local sink = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      local other = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      local out = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
      local function send(text, to) out:send_to(text, "127.0.0.1", (to or sink).local_port) end
      local function received(count, by)
        local list = {}
        for i = 1, count do list[i] = (by or sink):receive_string() end
        return table.concat(list, " ")
      end
    ]] .. program, "-e trace=sendto,sendmsg,sendmmsg " .. inject)
    return output, trace.results(log)
  end

  it_traced("are one for what one message can carry, and one for all else", on_main(function()
    local output, calls = sends_of("", [[
      for i = 1, 20 do send("same") end
      out:flush()
      send("alone")
      out:flush()
      send("one") send("two") send("3") send("four") send("", other) send("", other)
      out:flush()
      print(received(20) == ("same "):rep(20):sub(1, -2), received(5), received(2, other))
    ]])
    assert.equal("true\talone one two 3 four\t \n", output)
    assert.same({ "sendmsg 80", "sendto 5", "sendmmsg 4" }, calls)
  end, 60))

  it_traced("are one for each turn's sends", on_main(function()
    local output, calls = sends_of("", [[
      ip.fiber.run(function()
        for _ = 1, 3 do
          for i = 1, 5 do send("text") end
          ip.fiber.yield()
        end
      end)
      print(received(15) == ("text "):rep(15):sub(1, -2))
    ]])
    assert.equal("true\n", output)
    assert.same({ "sendmsg 20", "sendmsg 20", "sendmsg 20" }, calls)
  end, 60))

  it_traced("ask a path that refuses to cut never again", on_main(function()
    local output, calls = sends_of("-e inject=sendmsg:error=EIO:when=1", [[
      for _ = 1, 2 do
        for i = 1, 4 do send("n" .. i) end
        out:flush()
        print(received(4))
      end
    ]])
    assert.equal("n1 n2 n3 n4\nn1 n2 n3 n4\n", output)
    assert.same({ "sendmsg -1 EIO", "sendmmsg 4", "sendmmsg 4" }, calls)
  end, 60))

  it_traced("do not cut to sizes that the path was too small for", on_main(function()
    -- EMSGSIZE may speak of an older datagram, so the first attempt is repeated; EINVAL may not. What is injected the
    -- second time is the first attempt with another size.
    local expected = {
      EMSGSIZE = { "sendmsg -1 EMSGSIZE", "sendmsg -1 EMSGSIZE", "sendmmsg 3", "sendmmsg 3", "sendmsg 12" },
      EINVAL = { "sendmsg -1 EINVAL", "sendmmsg 3", "sendmmsg 3", "sendmsg -1 EINVAL", "sendmmsg 3" },
    }
    for name, list in pairs(expected) do
      local output, calls = sends_of("-e inject=sendmsg:error=" .. name .. ":when=1..2", [[
        for _, text in ipairs { "large", "large", "tiny" } do
          for i = 1, 3 do send(text) end
          out:flush()
        end
        print(received(9))
      ]])
      assert.equal("large large large large large large tiny tiny tiny\n", output)
      assert.same(list, calls)
    end
  end, 60))

  it_traced("go on behind what the system took, and behind what it refused", on_main(function()
    local output, calls = sends_of("-e inject=sendmmsg:retval=2:when=1 -e inject=sendto:error=EPERM:when=1..2", [[
      for i = 1, 4 do send("text " .. ("x"):rep(i)) end -- two of them are taken in name only
      out:flush()
      print(received(2))
      send("dropped")
      local ok, err = pcall(out.flush, out)
      print(ok, err)
      send("behind")
      out:flush()
      print(received(1))
    ]])
    assert.equal("text xxx text xxxx\nfalse\tflush: operation not permitted (EPERM)\nbehind\n", output)
    assert.same({ "sendmmsg 2", "sendmmsg 2", "sendto -1 EPERM", "sendto -1 EPERM", "sendto 6" }, calls)
  end, 60))

  it_traced("send once more what an error of an older datagram stopped, and tell it", on_main(function()
    local output, calls = sends_of("-e inject=sendmsg:error=EHOSTUNREACH:when=1", [[
      for i = 1, 3 do send("text") end
      print(select(2, pcall(out.flush, out)))
      out:flush()
      print(received(3))
    ]])
    assert.is_truthy(output:find("^flush: .- %(EHOSTUNREACH%)\ntext text text\n$"), output)
    assert.same({ "sendmsg -1 EHOSTUNREACH", "sendmsg 12" }, calls)
  end, 60))
end)
