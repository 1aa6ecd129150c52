// Sends rows with ch-go, ClickHouse's own client in Go: one connection and one INSERT for each method of
// compression, each with its share of the rows. Used as `client FOLDER PORT METHOD…`; FOLDER holds
// rows.json and one file of bytes for each row.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

var methods = map[string]ch.Compression{
	"none": ch.CompressionNone,
	"lz4":  ch.CompressionLZ4,
	"zstd": ch.CompressionZSTD,
}

type block struct {
	model, request, act, dtype, bytes proto.ColStr
	layer, shard, start, end          proto.ColInt32
	shape                             *proto.ColArr[int64]
}

func text(raw json.RawMessage) string {
	var value string
	check(json.Unmarshal(raw, &value))
	return value
}

func integer(raw json.RawMessage) int32 {
	var value int32
	check(json.Unmarshal(raw, &value))
	return value
}

func (b *block) add(folder string, row []json.RawMessage) {
	b.model.Append(text(row[0]))
	b.request.Append(text(row[1]))
	b.act.Append(text(row[2]))
	b.layer.Append(integer(row[3]))
	b.shard.Append(integer(row[4]))
	b.start.Append(integer(row[5]))
	b.end.Append(integer(row[6]))
	b.dtype.Append(text(row[7]))
	var shape []int64
	check(json.Unmarshal(row[8], &shape))
	b.shape.Append(shape)
	content, err := os.ReadFile(filepath.Join(folder, text(row[9])))
	check(err)
	b.bytes.AppendBytes(content)
}

func (b *block) input() proto.Input {
	return proto.Input{
		{Name: "model_id", Data: &b.model},
		{Name: "request_id", Data: &b.request},
		{Name: "act_name", Data: &b.act},
		{Name: "layer_no", Data: &b.layer},
		{Name: "shard_rank", Data: &b.shard},
		{Name: "start_token_idx", Data: &b.start},
		{Name: "end_token_idx", Data: &b.end},
		{Name: "dtype", Data: &b.dtype},
		{Name: "shape", Data: b.shape},
		{Name: "bytes", Data: &b.bytes},
	}
}

func send(address string, method ch.Compression, input proto.Input) {
	ctx := context.Background()
	client, err := ch.Dial(ctx, ch.Options{Address: address, Compression: method})
	check(err)
	check(client.Ping(ctx))
	check(client.Do(ctx, ch.Query{Body: input.Into("default.offload"), Input: input}))
	check(client.Close())
}

func check(err error) {
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	folder, address, names := os.Args[1], "127.0.0.1:"+os.Args[2], os.Args[3:]
	raw, err := os.ReadFile(filepath.Join(folder, "rows.json"))
	check(err)
	var rows [][]json.RawMessage
	check(json.Unmarshal(raw, &rows))
	for at, name := range names {
		share := block{shape: proto.NewArray[int64](new(proto.ColInt64))}
		for index := at; index < len(rows); index += len(names) {
			share.add(folder, rows[index])
		}
		send(address, methods[name], share.input())
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]int{"sent": len(rows)}))
}
