-- GET one path after the other. Arguments: the key, a file with a path a line.
require "common"

local requests, n = {}, 0

function init(args)
  wrk.headers["x-api-key"] = args[1]
  for path in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
end

function request()
  n = n % #requests + 1
  return requests[n]
end
