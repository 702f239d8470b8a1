-- Gives the targets of libFuzzer (spec/fuzz/targets) the inputs that are kept in spec/fuzz/corpus.

local hosts = require "spec.support.hosts"
local support = require "spec.support"

local promises = {
  endpoint_text = "accept the text of addresses that inet_pton accepts, and read what they have written",
  byte_search = "find bytes where the obvious search finds them",
  control_data = "read of ancillary data what is complete, and build what fits",
  read_ahead = "deliver each datagram that was read ahead once, whole and in order",
  send_queue = "send what the queue has accepted once, whole and in order, and tell what is lost",
}

describe("The inputs of the corpus", function()
  for target, promise in pairs(promises) do
    hosts.it("replay_" .. target)(promise, function()
      local output, code = support.read_command(("%s spec/fuzz/corpus/%s 2>&1"):format(
        hosts.path("replay_" .. target), target))
      assert.equal(0, code, output)
      assert.is_true(tonumber(output:match("^(%d+) inputs\n$")) > 50, output)
    end)
  end
end)
